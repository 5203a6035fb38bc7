from django.contrib import admin
from django.urls import path
from mysite.urls import urlpatterns as of_the_site

urlpatterns = [path("admin/", admin.site.urls), *of_the_site]
