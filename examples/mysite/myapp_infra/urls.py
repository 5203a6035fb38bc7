from django.urls import path

from . import views

urlpatterns = [
    path("api/send-email/", views.SendEmail.as_view()),
    path("api/result/<uuid:task_id>/", views.Result.as_view()),
    path("api/add/", views.Add.as_view()),
    path("api/boom/", views.Boom.as_view()),
    path("api/flaky/", views.Flaky.as_view()),
]
